"""Tables, the HTML report and the published numbers."""
