"""Results for people and programs: terminal, HTML, Markdown, JSON, CSV, JUnit."""
