"""What the page of linear mode connectivity shows."""
