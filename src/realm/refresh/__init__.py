"""Keep the index fresh while the embedder learns: trainer and builders, who meet only in folders.

A run's folder holds what they exchange:

    embedders/step-N/   parameters of Embed_doc, published by the trainer   (parameters.py)
    index/step-N/       snapshots, published by builders                    (realm.index.snapshot)
    patches/step-N.X/   some rows, published by builders of a rolling refresh   (patches.py)
    processes/          what each process is doing, and whether it lives    (presence.py)

Either side may die at any moment and come back.
"""
