"""Read folders of SIREN fields that were saved with PyTorch, one ``.pth`` file per field.

Such sets accompany Navon et al. 2023 (DWSNets, arXiv 2301.12780) and Zhou et al. 2023 (NFN, arXiv
2302.14040); Kofinas et al. 2024 and Kalogeropoulos et al. 2024 (ScaleGMN) train on the same files.
A file is a state dict with a weight ``[out, in]`` and a bias ``[out]`` per linear map, in order, of
``sin(omega_0 (x W^T + b))`` and a linear output; their layouts are::

    DWSNets, MNIST          mnist_png_training_<label>_<image>/checkpoints/model_final.pth
                            mnist_png_testing_<label>_<image>/checkpoints/model_final.pth
    DWSNets, Fashion-MNIST  train/model_<image>.pth, test/…; label in the state dict; splits.json
    DWSNets, sine waves     model_<seed>.pth; two coefficients in the state dict
    NFN                     <prefix>_<label>s/net<image>.pth

Outputs are shifted by one half (DWSNets), and halved before that (NFN). Any other folder of such
files is read with the folder of a file as its class. Files are opened without running code that a
pickle may hold.
"""

from nefbench.weights.state_dicts.importing import import_state_dicts, is_of_state_dicts

__all__ = ["import_state_dicts", "is_of_state_dicts"]
