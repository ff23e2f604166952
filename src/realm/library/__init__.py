"""Living documents: a folder that holds documents and answers from them as they change."""
