"""Training pairs of reference and video, as Figure 2 of the paper builds them (2503.14151).

A video is read once (`reader`), judged (`people`), compared with all others (`partners`), and
stands in the outputs that it is fit for (`stages`).
"""
