"""Shows a catalogue: as one page for the browser, and in the terminal."""
