"""The studio: a page in the browser over the engine and its HTTP API."""
