"""Scores as metrics of other libraries; each module needs its library, none is needed otherwise."""
