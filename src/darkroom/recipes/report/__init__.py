"""What a finished run looks like: samples beside their nearest training pictures, curves, figures, commands."""
