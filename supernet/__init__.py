"""Networks, the shared-weight store that they view, and their extraction.

Importing this package registers `subnet` and the published designs with timm.
"""

from supernet.exported import ExportedNetwork, load_exported, save_exported
from supernet.network import Network
from supernet.optimizer import StoreAdamW, parameter_groups
from supernet.registry import subnet
from supernet.store import Store, count_shared_weights

__all__ = [
    "ExportedNetwork",
    "Network",
    "Store",
    "StoreAdamW",
    "count_shared_weights",
    "load_exported",
    "parameter_groups",
    "save_exported",
    "subnet",
]
