"""Raw data under DVC: versions, remotes, digests."""
