"""The HTTP server: questions over the network, answered in micro-batches by one model.

`app.build_app` makes the application, `server.serve` runs it; nothing happens at import.
"""
