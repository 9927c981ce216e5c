"""Self-contained HTML: elements whose text is escaped by construction, and plots drawn from numbers."""
