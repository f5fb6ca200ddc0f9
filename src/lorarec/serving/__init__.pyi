from .run import listen as listen
from .run import require_key as require_key
from .run import serve as serve
from .service import Service as Service
from .service import ServiceConfig as ServiceConfig
