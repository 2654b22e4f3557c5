"""Photos to training batches: the store of clean HR images, crops, the DataModule, the embedded sample."""
