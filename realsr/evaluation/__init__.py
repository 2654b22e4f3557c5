"""How good a network is: rivals, measures without ground truth, how near made LR comes to a camera, tables."""
