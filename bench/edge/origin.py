"""The instances behind every proxy: one nginx on several ports, shared by all peers.

What it answers is by path:

  /            1 KiB
  /varied      1 KiB, with a header line that is new in every answer
  /file        1 MiB from a file
  /bulk        512 MiB from a file of holes, for raw TCP
  /upload      two bytes, once the request's whole body is here: nginx reads a body before it asks the next server,
               and the next server is nginx itself on a Unix socket, which gets the head only
"""

import os
import subprocess
from pathlib import Path

from bench.edge.processes import Processes, free_ports, wait_for

INSTANCES = 10
FILE_BYTES = 1 << 20
BULK_BYTES = 512 << 20
CONFIG = """
{user} daemon off; worker_processes 1; pid {folder}/origin.pid; error_log stderr crit; worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
  access_log off; sendfile on; tcp_nopush on; client_body_buffer_size 128k; client_max_body_size 0;
  keepalive_requests 1000000000; keepalive_timeout 300s; default_type application/octet-stream;
  client_body_temp_path {folder}/origin-bodies; proxy_temp_path {folder}/origin-answers;
  fastcgi_temp_path {folder}/origin-fastcgi; uwsgi_temp_path {folder}/origin-uwsgi; scgi_temp_path {folder}/origin-scgi;
  open_file_cache max=16;
  upstream itself {{ server unix:{folder}/origin.sock; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    {listens}
    location / {{ return 200 '{kilobyte}'; }}
    location /varied {{ add_header X-Request-Id $request_id; return 200 '{kilobyte}'; }}
    location = /file {{ alias {folder}/file; }}
    location = /bulk {{ alias {folder}/bulk; }}
    location = /upload {{
      proxy_pass http://itself; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
  }}
  server {{ listen unix:{folder}/origin.sock; location / {{ return 200 'ok'; }} }}
}}
"""


def nginx_user() -> str:
    """Started by root, nginx would have its workers be somebody who may not use our folder."""
    return "user root;" if os.geteuid() == 0 else ""


class Origin:
    """The running upstream."""

    def __init__(self, processes: Processes, folder: Path, on_cpu: int, files: int) -> None:
        """`files`: descriptors it may have."""
        self.ports = tuple(free_ports(INSTANCES))
        (folder / "file").write_bytes(os.urandom(FILE_BYTES))
        with (folder / "bulk").open("wb") as bulk:
            bulk.truncate(BULK_BYTES)
        config, log = folder / "origin.conf", folder / "origin.log"
        config.write_text(
            CONFIG.format(
                user=nginx_user(),
                folder=folder,
                files=files,
                connections=files - 64,
                listens=" ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in self.ports),
                kilobyte="x" * 1024,
            )
        )
        self.process: subprocess.Popen[bytes] = processes.start(
            on_cpu, ["nginx", "-c", str(config), "-p", str(folder)], log
        )
        wait_for(self.ports[0], self.process, log)
