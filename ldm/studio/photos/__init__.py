"""The first tab of the studio: edit a face in a whole photo, with PhotoEditor."""
