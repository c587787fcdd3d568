"""The finished HTML, page by page and as a whole."""
