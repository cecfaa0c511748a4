"""Scores of label maps that any program wrote: which file is which frame, what its values mean, and all that it scores.

`truth` has the frames and their labels, `names` finds the file of each frame, `codings` finds out what values mean,
`prediction_files` reads a file, `folder` measures a whole folder, and `tables` prints scores.
"""
