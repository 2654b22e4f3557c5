"""How pages and pictures for people are drawn."""
