"""The paper's experiments: cells that are trained or measured, and what is read from them."""
