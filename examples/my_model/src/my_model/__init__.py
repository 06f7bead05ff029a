"""An example of a model and a metric for idbench."""
