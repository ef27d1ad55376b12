"""What a picker is, and where its weights come from."""
