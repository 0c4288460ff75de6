"""Pictures of `cnnbench visualize`: one file per `what=`; `context.py` and `layer_view.py` have what they share."""
