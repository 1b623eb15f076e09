"""What all notebooks use: setup, figures, widgets, plugs and verdicts."""
