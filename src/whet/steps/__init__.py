"""The steps of a recipe, a file a craft, all of one protocol: a folder, options and a run in; a folder out."""
