"""Small models of every kind of steering."""

from small_models import model_files, small

__all__ = ["model_files", "small"]
