"""The web server of the studio: where it listens, who may connect, and what may be uploaded."""
