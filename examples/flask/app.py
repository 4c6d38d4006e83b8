"""The post's Flask app: a few routes worth watching, and its own metrics on /metrics.

    python app.py --port 8081

`group_by="url_rule"` labels requests by route, not by raw path: a bot that tries ten thousand paths must not make
ten thousand series.
"""

import argparse
import logging
import random
import time

from flask import Flask, Response, jsonify, request
from prometheus_flask_exporter import PrometheusMetrics

app = Flask(__name__)
metrics = PrometheusMetrics(app, group_by="url_rule")
metrics.info("hello_app_info", "The example app", version="1.0")


@app.route("/")
def index() -> str:
    return "Hello, World!\n"


@app.route("/hello/<event_type>")
@metrics.counter(
    "events_by_type",
    "Events by their type",
    labels={"event_type": lambda: request.view_args["event_type"] if request.view_args else ""},
)
def hello_event(event_type: str) -> str:
    return f"{event_type}: you have been recorded.\n"


@app.route("/slow")
def slow() -> str:
    """Sleeps `ms` milliseconds (at most 2000), by chance if not said."""
    milliseconds = min(2000, max(0, request.args.get("ms", random.randint(60, 400), type=int)))
    time.sleep(milliseconds / 1000)
    return f"slept {milliseconds} ms\n"


@app.route("/orders", methods=["POST"])
def orders() -> tuple[Response, int]:
    return jsonify(bytes=len(request.get_data())), 201


@app.route("/broken")
def broken() -> tuple[str, int]:
    return "this route always fails\n", 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app.run(host=arguments.host, port=arguments.port, threaded=True)


if __name__ == "__main__":
    main()
