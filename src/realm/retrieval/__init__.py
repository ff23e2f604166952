"""From a query to candidates to padded tensors."""
