"""What a catalogue looks like: one page for the browser, and the same in the terminal."""
