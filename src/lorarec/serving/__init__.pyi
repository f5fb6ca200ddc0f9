from .config import REQUESTS as REQUESTS
from .config import ServiceConfig as ServiceConfig
from .server import listen as listen
from .server import require_key as require_key
from .server import serve as serve
from .service import Service as Service
