"""The rest of the internet, for the test: a name server and mail servers, of Python's standard library alone.

    internet.py dns ZONE              answers from the zone (name_server.py)
    internet.py smtp CHARACTER        a mail server on port 25, of the character given (mail_server.py)
    internet.py get URL               prints what is there (the metrics of a container without a shell)
"""

import sys
import urllib.request

import mail_server
import name_server


def get(url):
    sys.stdout.write(urllib.request.urlopen(url, timeout=10).read().decode())


command, argument = sys.argv[1:]
{"dns": name_server.serve, "smtp": mail_server.serve, "get": get}[command](argument)
