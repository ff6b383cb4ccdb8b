"""What measures mmctx: speed, memory, the paper's tables and a study; the results are beside it."""
