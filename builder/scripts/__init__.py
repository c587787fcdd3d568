"""Scripts: run, watched, recorded."""
