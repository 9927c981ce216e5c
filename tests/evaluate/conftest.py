"""Small models of every kind of steering."""

from small_models import model_files

__all__ = ["model_files"]
