"""Training pairs of reference and video, as Figure 2 of the paper builds them (2503.14151).

A video is read once (`faces`), judged (`filter`), compared with all others (`search`), and
stands in the outputs that it is fit for (`stages`, `multi`, `subjects`).
"""
