"""The editing engine. Importing it does not import torch."""
