"""Floor 0: values and rules that every room shares; no weights, no files of models, nothing above."""
