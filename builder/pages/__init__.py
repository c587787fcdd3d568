"""Pages: what their Markdown holds, what is wrong with it, and what is put into it."""
