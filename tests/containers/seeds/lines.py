"""Every `docker run` line of the older images' documentation. `000 001 004` are the seeds that have it.

000: cormorack/hypercorn, 001: mkeller7/conda-starlette, 002: br3ndonland/inboard, 004: tiangolo's
meinheld-gunicorn-flask. 003 (pfeiffermax's uvicorn-gunicorn-poetry) has no such line, and no Dockerfile.
"""

from __future__ import annotations

from .applications import CONF_MARK, HOOK_MARK
from .looks import (
    accesses,
    answers,
    answers_by_tls,
    contains,
    idle_connection_lives,
    logs,
    never_logs,
    nobody_at,
    reloads,
    stops_after,
    workers,
)
from .row import Run

ALL = "000 001 004"
SLIP = (
    "it publishes 8080 and sets no port, a slip of its author: 80 is published beside it, nobody is at 8080"
)
SPACE = "its space is missing, so Docker takes the image's name for the value and finds no image: put in"

RUNS = (
    Run("000", "How to use", "docker run -d --name mycontainer -p 80:80 myimage", (answers(),)),
    Run("001", "Quick Start", "docker run -d --name mycontainer -p 80:80 myimage", (answers(),)),
    Run(
        ALL,
        "`MODULE_NAME`",
        'docker run -d -p 80:80 -e MODULE_NAME="custom_app.custom_main" myimage',
        (answers(),),
        files="custom",
    ),
    Run(
        "000",
        "`VARIABLE_NAME`",
        'docker run -d -p 80:80 -e VARIABLE_NAME="api" myimage',
        (answers('{"message":"Hello world!"}'),),
        files="fastapi",
        more="RUN pip install fastapi\n",
        changed="its application is FastAPI's, which neither that image nor ours has: it is installed",
    ),
    Run(
        "001 004",
        "`VARIABLE_NAME`",
        'docker run -d -p 80:80 -e VARIABLE_NAME="api" myimage',
        (answers(),),
        files="api",
    ),
    Run(
        ALL,
        "`APP_MODULE`",
        'docker run -d -p 80:80 -e APP_MODULE="custom_app.custom_main:api" myimage',
        (answers(),),
        files="custom api",
    ),
    Run(
        "000",
        "`HYPERCORN_CONF`",
        'docker run -d -p 80:80 -e HYPERCORN_CONF="/app/custom_hypercorn_conf.py" myimage',
        (answers(), logs(CONF_MARK), workers(exactly=3)),
        files="configuration",
    ),
    Run(
        "001 004",
        "`GUNICORN_CONF`",
        'docker run -d -p 80:80 -e GUNICORN_CONF="/app/custom_gunicorn_conf.py" myimage',
        (answers(), logs(CONF_MARK), workers(exactly=3)),
        files="configuration",
    ),
    Run(
        ALL,
        "`WORKERS_PER_CORE`",
        'docker run -d -p 80:80 -e WORKERS_PER_CORE="3" myimage',
        (answers(), workers(per_core=3)),
    ),
    Run(
        ALL,
        "`WORKERS_PER_CORE`",
        'docker run -d -p 80:80 -e WORKERS_PER_CORE="0.5" myimage',
        (answers(), workers(per_core=0.5)),
    ),
    Run(
        "000",
        "`MAX_WORKERS`",
        'docker run -d -p 80:80 -e MAX_WORKERS="24" myimage',
        (answers(), workers(per_core=1, most=24)),
    ),
    Run(
        ALL,
        "`WEB_CONCURRENCY`",
        'docker run -d -p 80:80 -e WEB_CONCURRENCY="2" myimage',
        (answers(), workers(exactly=2)),
    ),
    Run(ALL, "`PORT`", 'docker run -d -p 80:8080 -e PORT="8080" myimage', (answers(),)),
    Run(ALL, "`BIND`", 'docker run -d -p 80:8080 -e BIND="0.0.0.0:8080" myimage', (answers(),)),
    Run(
        "000",
        "`LOG_LEVEL`",
        'docker run -d -p 80:8080 -e LOG_LEVEL="warning" myimage',
        (answers(), accesses(shown=True), never_logs("[INFO] serving"), nobody_at(8080)),
        port=80,
        changed=SLIP,
    ),
    Run(
        "001 004",
        "`LOG_LEVEL`",
        'docker run -d -p 80:8080 -e LOG_LEVEL="warning" myimage',
        (answers(), never_logs("[INFO] serving"), nobody_at(8080)),
        port=80,
        changed=SLIP,
    ),
    Run(
        "000",
        "`WORKER_CLASS`",
        'docker run -d -p 80:8080 -e WORKER_CLASS="uvloop" myimage',
        (answers("uvloop", "/loop"), nobody_at(8080)),
        port=80,
        changed=SLIP,
    ),
    Run(
        "000",
        "`KEEP_ALIVE`",
        'docker run -d -p 80:8080 -e KEEP_ALIVE="20" myimage',
        (answers(), idle_connection_lives(15), nobody_at(8080)),
        port=80,
        changed=SLIP,
    ),
    Run(
        "000",
        "`GRACEFUL_TIMEOUT`",
        'docker run -d -p 80:8080 -e GRACEFUL_TIMEOUT="20" myimage',
        (answers(), nobody_at(8080), stops_after(15, 50)),
        port=80,
        changed=SLIP,
    ),
    Run(
        "000",
        "`ACCESS_LOG`",
        "docker run -d -p 80:8080 -e ACCESS_LOG=myimage",
        (answers(), nobody_at(8080), accesses(shown=False)),
        port=80,
        instead="docker run -d -p 80:8080 -e ACCESS_LOG= myimage",
        changed=f"{SPACE}; {SLIP}",
    ),
    Run(
        "000",
        "`ERROR_LOG`",
        "docker run -d -p 80:8080 -e ERROR_LOG=myimage",
        (answers(), accesses(shown=True), never_logs("[INFO] serving"), nobody_at(8080)),
        port=80,
        instead="docker run -d -p 80:8080 -e ERROR_LOG= myimage",
        changed=f"{SPACE}; {SLIP}",
    ),
    Run(
        "000",
        "`PRE_START_PATH`",
        'docker run -d -p 80:8080 -e PRE_START_PATH="/custom/script.sh" myimage',
        (answers(), logs("Running script /custom/script.sh"), logs(HOOK_MARK), nobody_at(8080)),
        files="hook",
        more="COPY ./custom /custom\n",
        port=80,
        changed=f"its script is copied to /custom; {SLIP}",
    ),
    Run("000", "Usage", "docker run -d -p 80:80 myimage", (answers(), workers(per_core=1)), files="package"),
    Run(
        "000",
        "Usage",
        "docker run -d -p 80:80 -v $(pwd):/app myimage /start-reload.sh",
        (reloads("app/main.py"),),
    ),
    Run(
        "002",
        "Run containers",
        "docker run -d -p 80:80 imagename",
        (answers(), logs(HOOK_MARK), workers(per_core=1)),
    ),
    Run(
        "002",
        "Run containers",
        'docker run -d -p 80:80 -e "LOG_LEVEL=debug" -e "WITH_RELOAD=true" -v $(pwd)/package:/app imagename',
        (reloads("package/main.py"),),
    ),
    Run(
        "002",
        "Run containers",
        "docker run -d -p 80:80 docker.pkg.github.com/br3ndonland/inboard/base",
        (contains("Hello world! From mooring, uvicorn and Python 3."),),
        changed="the demo's text: it says what serves",
    ),
    Run(
        "002",
        "Configuration",
        'docker run -d -p 80:80 -e APP_MODULE="custom.module:api" -e WORKERS_PER_CORE="2" myimage',
        (answers(), workers(per_core=2)),
        files="module",
    ),
    Run(
        "002",
        "Configuration",
        'docker run -d -p 80:8080 -e GUNICORN_CMD_ARGS="--keyfile=/secrets/key.pem '
        '--certfile=/secrets/cert.pem" -e PORT=443 myimage',
        (answers_by_tls(), nobody_at(8080)),
        options=("--volume", "$(pwd)/secrets:/secrets"),
        port=443,
        changed="it publishes 8080 and listens at 443, a slip of its author: 443 is published beside it. "
        "The key is mounted, as the text above it says",
    ),
)
