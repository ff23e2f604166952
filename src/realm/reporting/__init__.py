"""What a run did, to look at: its curves as numbers, and a report as one file."""
