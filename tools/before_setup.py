"""What `make` says before it sets up: whether this Python will do, what will be downloaded, and how much disk it takes.

It has to run on any Python, so as to refuse the wrong one.
"""
import sys

if not (3, 11, 5) <= sys.version_info[:3] < (3, 15):
    sys.exit('This is Python %d.%d.%d, and the packages that constraints.txt pins need 3.11.5 to 3.14; '
             'name one of these: make PYTHON=/its/path' % sys.version_info[:3])

print('Set-up makes .venv. With the CPU build of PyTorch it downloads 0.5 GB and takes 2.0 GB of disk; with the CUDA build, '
      "pip's choice on Linux, 3 GB and 5.3 GB (README: how to get the small one).")
