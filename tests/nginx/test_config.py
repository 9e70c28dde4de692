"""What nginx would speak to its upstreams, as nginx/config.py reads it from a ConfigMap."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_mesh.nginx import config as nginx
from kubectl_mesh.nginx.config import (
    Gap,
    NginxConfig,
    Proxy,
    Setting,
    Unreadable,
    default_http_version,
    is_nginx_image,
)


def read(data: dict[str, str]) -> NginxConfig:
    config = nginx.read(data)
    assert config is not None
    return config


def only_proxy(text: str) -> Proxy:
    config = read({"nginx.conf": text})
    assert config.unreadable == ()
    (proxy,) = config.proxies
    return proxy


def names(proxy: Proxy) -> list[str]:
    return [header.name for header in proxy.headers]


MAIN = """\
events {}
http {
    include /etc/nginx/mime.types;
    include /etc/nginx/conf.d/*.conf;
}
"""
SITE = """\
server {
    listen 80;
    location / {
        proxy_pass http://web;
    }
}
"""


# What a proxy_pass is told


def test_the_settings_of_a_location_with_their_places() -> None:
    proxy = only_proxy(
        """\
events {}
http {
    server {
        listen 8080;
        server_name shop.example.com www.example.com;
        location /api/ {
            proxy_pass http://api.shop.svc.cluster.local:8080/v1;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
"""
    )
    assert (proxy.target, proxy.key, proxy.line, proxy.level) == (
        "http://api.shop.svc.cluster.local:8080/v1",
        "nginx.conf",
        7,
        "location",
    )
    assert proxy.context == "server shop.example.com, location /api/"
    assert proxy.http_version == Setting("1.1", "nginx.conf", 8, "location")
    assert proxy.connection == nginx.Header("Connection", "", "nginx.conf", 9, "location")
    assert proxy.hosts == ("api.shop.svc.cluster.local",)
    assert (proxy.scheme, proxy.upstream, proxy.gaps) == ("http", None, ())
    assert proxy.outer_seen


def test_nothing_set_anywhere_is_nginxs_default() -> None:
    proxy = only_proxy("http { server { location / { proxy_pass http://a; } } }")
    assert (proxy.http_version, proxy.connection, proxy.headers) == (None, None, ())
    assert proxy.context == "server, location /"


@pytest.mark.parametrize(
    ("http", "server", "location", "version", "level"),
    [
        ("1.1", None, None, "1.1", "http"),
        ("1.1", "1.0", None, "1.0", "server"),
        (None, "1.0", "1.1", "1.1", "location"),
        ("2", None, None, "2", "http"),
    ],
)
def test_the_innermost_http_version_holds_wherever_it_stands_in_its_block(
    http: str | None, server: str | None, location: str | None, version: str, level: str
) -> None:
    def line(value: str | None) -> str:
        return f"proxy_http_version {value};" if value else ""

    proxy = only_proxy(
        f"http {{ server {{ location / {{ proxy_pass http://a; {line(location)} }}"
        f" {line(server)} }} {line(http)} }}"
    )
    assert proxy.http_version == Setting(version, "nginx.conf", 1, level)


def test_headers_are_inherited_only_by_a_level_that_sets_none() -> None:
    config = read(
        {
            "nginx.conf": """
http {
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    server {
        location /inherits { proxy_pass http://a; }
        location /own {
            proxy_set_header Connection "";
            location /own/nested { proxy_pass http://b; }
            proxy_pass http://c;
        }
    }
}
"""
        }
    )
    assert [(proxy.target, names(proxy)) for proxy in config.proxies] == [
        ("http://a", ["Host", "X-Real-IP"]),
        ("http://b", ["Connection"]),
        ("http://c", ["Connection"]),
    ]


def test_if_and_limit_except_inherit_from_their_location() -> None:
    config = read(
        {
            "nginx.conf": """
http { server { listen 81; location / {
    proxy_http_version 1.0;
    proxy_set_header X 1;
    if ($arg_a = b) { proxy_pass http://a; }
    limit_except GET { proxy_pass http://b; }
} } }
"""
        }
    )
    assert [(p.level, p.http_version, names(p), p.context) for p in config.proxies] == [
        (
            level,
            Setting("1.0", "nginx.conf", 3, "location"),
            ["X"],
            f"server 81, location /, {block}",
        )
        for level, block in [("if", "if ($arg_a = b)"), ("limit_except", "limit_except GET")]
    ]


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ("proxy_set_header connection close;", "close"),
        ("proxy_set_header Connection $connection_upgrade;", "$connection_upgrade"),
        ("proxy_set_header Connection '';", ""),
        ('proxy_set_header Connection ""; proxy_set_header CONNECTION upgrade;', "upgrade"),
    ],
)
def test_the_connection_header_in_any_case_and_number(headers: str, value: str) -> None:
    proxy = only_proxy(f"http {{ server {{ location / {{ {headers} proxy_pass http://a; }} }} }}")
    assert proxy.connection is not None
    assert proxy.connection.value == value


UPSTREAMS = """
http {
    upstream Backend {
        server a.shop:8080 weight=5;
        server B.shop;
        server [::1]:80 backup;
        server a.shop:8081;
        server unix:/run/app.sock;
        keepalive 16 local;
    }
    upstream idle { server c; keepalive 0; }
    upstream plain { server d; }
    upstream chosen { server ${BACKEND_HOST}:80; }
    server { location / { proxy_pass TARGET; } }
}
"""


@pytest.mark.parametrize(
    ("target", "upstream", "keepalive", "hosts"),
    [
        ("http://backend/x", "Backend", True, ("a.shop", "b.shop", "::1")),
        ("http://Backend$request_uri", "Backend", True, ("a.shop", "b.shop", "::1")),
        ("https://idle", "idle", False, ("c",)),
        ("http://plain?a=b", "plain", False, ("d",)),
        ("http://chosen", "chosen", False, None),
        ("http://other:80/", None, False, ("other",)),
        ("HTTP://Other.shop/$1", None, False, ("other.shop",)),
        ("http://[fd00::1]:80/", None, False, ("fd00::1",)),
        ("http://unix:/run/x.sock:/", None, False, ()),
        ("http://$backend", None, False, None),
        ("http://svc:$port", None, False, ("svc",)),
        ("$backend", None, False, None),
        ("http://${HOST}.shop.svc:${PORT}", None, False, None),
    ],
)
def test_the_upstream_and_the_hosts_of_a_target(
    target: str, upstream: str | None, keepalive: bool, hosts: tuple[str, ...] | None
) -> None:
    proxy = only_proxy(UPSTREAMS.replace("TARGET", target))
    assert (proxy.upstream and proxy.upstream.name) == upstream
    assert proxy.keepalive is keepalive
    assert proxy.hosts == hosts
    assert proxy.target == target


def test_an_upstream_says_where_its_keepalive_is() -> None:
    upstream = only_proxy(UPSTREAMS.replace("TARGET", "http://backend")).upstream
    assert upstream is not None
    assert upstream.keepalive == Setting("16", "nginx.conf", 9, "upstream")
    assert upstream.servers == (
        "a.shop:8080",
        "B.shop",
        "[::1]:80",
        "a.shop:8081",
        "unix:/run/app.sock",
    )
    assert upstream.line == 3


@pytest.mark.parametrize(
    ("target", "scheme"),
    [("http://a", "http"), ("HTTPS://a", "https"), ("$target", None), ("${TARGET}", None)],
)
def test_the_scheme(target: str, scheme: str | None) -> None:
    assert only_proxy(UPSTREAMS.replace("TARGET", target)).scheme == scheme


def test_only_http_proxying_counts() -> None:
    config = read(
        {
            "nginx.conf": """
stream {
    upstream db { server db:5432; }
    server { listen 5432; proxy_pass db; }
    server { listen 5433; proxy_pass $name; }
}
mail { server { listen 25; proxy_pass http://m; } }
http {
    server {
        location /grpc { grpc_pass grpc://g:50051; }
        location /php { fastcgi_pass php:9000; }
        location /py { uwsgi_pass py:3031; }
        location /odd { proxy_pass tcp://x; }
    }
}
""",
            "tcp.conf": "server { listen 6379; proxy_pass redis:6379; }",
        }
    )
    assert config == NginxConfig((), ())


# Several files


def test_a_pattern_takes_in_the_keys_that_belong_there() -> None:
    config = read(
        {
            "nginx.conf": MAIN.replace("include /etc/nginx/mime", "proxy_http_version 1.1; #"),
            "shop.conf": SITE,
            "default.conf": SITE,
            "default.conf.bak": SITE.replace("web", "old"),
        }
    )
    seen = [(p.key, p.http_version, p.outer_seen) for p in config.proxies]
    version = Setting("1.1", "nginx.conf", 3, "http")
    assert seen == [
        ("default.conf", version, True),
        ("shop.conf", version, True),
        ("default.conf.bak", None, False),
    ]


def test_a_pattern_in_another_context_takes_nothing() -> None:
    config = read(
        {
            "nginx.conf": "include /etc/nginx/modules-enabled/*.conf;\n"
            "stream { include stream.d/*.conf; }\n" + MAIN,
            "default.conf": SITE,
        }
    )
    assert [(p.key, p.outer_seen, p.gaps) for p in config.proxies] == [("default.conf", True, ())]


def test_what_is_included_by_name_is_not_taken_in_by_a_pattern_too() -> None:
    config = read(
        {
            "nginx.conf": MAIN,
            "default.conf": SITE
            + SITE.replace("proxy_pass http://web", "include proxy.conf; proxy_pass http://b"),
            "proxy.conf": "proxy_http_version 1.1;\nproxy_set_header Connection '';\n",
        }
    )
    assert [(p.target, p.http_version) for p in config.proxies] == [
        ("http://web", None),
        ("http://b", Setting("1.1", "proxy.conf", 1, "location")),
    ]


def test_one_file_in_two_places_is_two_proxies() -> None:
    config = read(
        {
            "nginx.conf": "http { server { listen 1; include app.conf; }"
            " server { listen 2; proxy_http_version 1.1; include app.conf; } }",
            "app.conf": "location /app { proxy_pass http://app; }",
        }
    )
    assert [
        (p.key, p.context, p.http_version and p.http_version.value) for p in config.proxies
    ] == [
        ("app.conf", "server 1, location /app", None),
        ("app.conf", "server 2, location /app", "1.1"),
    ]


def test_upstreams_come_from_every_file_of_the_same_http_block() -> None:
    config = read(
        {
            "nginx.conf": "http { include default.conf; include upstream.conf; }",
            "default.conf": SITE,
            "upstream.conf": "upstream web { server web.shop.svc:80; keepalive 8; }",
        }
    )
    assert [proxy.hosts for proxy in config.proxies] == [("web.shop.svc",)]


def test_fragments_without_a_main_file_share_the_images_http_block() -> None:
    config = read(
        {
            "default.conf.template": SITE,
            "upstream.conf": "upstream web { server web.shop.svc:80; keepalive 8; }",
            "proxy.conf": "proxy_http_version 1.1;",
            "proxy_params": "proxy_http_version 1.0;",
        }
    )
    (proxy,) = config.proxies
    assert proxy.hosts == ("web.shop.svc",)
    assert proxy.http_version == Setting("1.1", "proxy.conf", 1, "http")
    assert not proxy.outer_seen


@pytest.mark.parametrize(
    ("text", "level", "context"),
    [
        (
            "location /a { proxy_pass http://web; }\nproxy_http_version 1.0;",
            "server",
            "location /a",
        ),
        ("proxy_pass http://web;\nproxy_http_version 1.0;", "location", ""),
        ("proxy_http_version 1.0;\n" + SITE, "http", "server 80, location /"),
    ],
)
def test_a_fragment_is_read_at_the_level_that_it_is_written_for(
    text: str, level: str, context: str
) -> None:
    (proxy,) = read({"snippet": text}).proxies
    assert proxy.http_version is not None
    assert (proxy.http_version.value, proxy.http_version.level) == ("1.0", level)
    assert proxy.context == context
    assert not proxy.outer_seen


def test_what_is_included_but_not_there_is_a_gap_of_the_levels_inside() -> None:
    config = read(
        {
            "nginx.conf": """
http {
    include mime.types;
    include /etc/passwd;
    include ../../../etc/hostname;
    server {
        include /etc/nginx/snippets/*.conf;
        location / { proxy_pass http://a; }
        location /b { include proxy_params; proxy_pass http://b; }
    }
}
"""
        }
    )
    outer = (
        Gap("include /etc/passwd", "nginx.conf", 4),
        Gap("include ../../../etc/hostname", "nginx.conf", 5),
        Gap("include /etc/nginx/snippets/*.conf", "nginx.conf", 7),
    )
    assert [proxy.gaps for proxy in config.proxies] == [
        outer,
        (*outer, Gap("include proxy_params", "nginx.conf", 9)),
    ]


def test_an_unreadable_include_is_reported_and_is_a_gap() -> None:
    config = read(
        {
            "nginx.conf": "http { server { location / { include params; proxy_pass http://a; } } }",
            "params": 'proxy_set_header X "1;\n',
        }
    )
    assert config.unreadable == (Unreadable("params", 1, 'unexpected end of file, expecting """'),)
    assert [gap.what for gap in config.proxies[0].gaps] == ["include params"]


def test_circles_end_and_are_reported() -> None:
    config = read(
        {
            "nginx.conf": "http { include a; }",
            "a": SITE + "include b;",
            "b": SITE.replace("web", "other") + "include a;",
            "own.conf": "location /x { proxy_pass http://x; include own.conf; }",
        }
    )
    assert sorted(p.target for p in config.proxies) == ["http://other", "http://web", "http://x"]
    assert config.unreadable == (
        Unreadable("b", 7, '"a" includes itself'),
        Unreadable("own.conf", 1, '"own.conf" includes itself'),
    )


def test_a_circle_without_a_beginning_is_read_once() -> None:
    config = read({"a": SITE + "include b;", "b": "include a;\n" + SITE.replace("web", "b")})
    assert sorted(p.target for p in config.proxies) == ["http://b", "http://web"]


def test_a_pattern_that_matches_its_own_file_is_no_circle() -> None:
    config = read({"a.conf": SITE + "include *.conf;", "b.conf": SITE.replace("web", "b")})
    assert [p.target for p in config.proxies] == ["http://web", "http://b"]
    assert config.unreadable == ()


def test_files_on_this_machine_are_never_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    (file := tmp_path / "leak.conf").write_text("proxy_pass http://leaked;")  # type: ignore[operator]
    nginx.read({"a": SITE})  # crossplane is imported by now

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"opened {args}")

    for name in ("builtins.open", "io.open", "os.open", "os.listdir", "os.scandir"):
        monkeypatch.setattr(name, refuse)
    config = nginx.read(
        {"a": f"http {{ server {{ location / {{ include {file}; include {tmp_path}/*; }} }} }}"}
    )
    monkeypatch.undo()
    assert config == NginxConfig((), ())


# What is nginx and what is not


@pytest.mark.parametrize(
    "text",
    [
        '{"server": {"location": "/", "proxy_pass": "http://a;"}}',
        '{"nginx.conf": "http {\\n server { location / { proxy_pass http://a; } }"}',
        '[{"a": 1};\nserver { listen 80; }]',
        "server.port=8080\nproxy_pass=http://a;\nupstream=b\n",
        "#!/bin/sh\nserver {\n  listen 80;\n}\n",
        "set -e\ncat > /etc/nginx/nginx.conf <<'EOF'\nserver {\n  listen 80;\n"
        "  location / { proxy_pass http://a; }\n}\nEOF\n",
        "cat <<EOF > f\nhttp {\nserver { listen 80; it's\nEOF\n",
        "local http = require 'http'\nlocal server = http {\n  location = '/' ;\n}\n",
        "<html><style>\nserver { listen: 80; }\n</style></html>",
        "<VirtualHost *:80>\nProxyPass / http://a/\nlocation /x { root y; }\n</VirtualHost>",
        "location { color: red; }\nserver { margin: 0; }",
        "location = { href: '/a' };\nuser x;",
        "server { listen(80); };",
        "server:\n  listen: 80;\nhttp: {a: 1}\nupstream: {b: 2}\n",
        "nginx.conf: |\n  server {\n    listen 80;\n  }\n",
        "server {\n  enabled = true\n  bootstrap_expect = 3\n}\n",
        "http {\n  server { port = 80 }\n  user = root\n}\n",
        "# Setting up\nUse this:\n```\nserver {\n  listen 80;\n}\n```\n",
        "Use this:\nserver {\n  listen 80;\n}\n",
        'options { directory "/var"; };\nserver 10.0.0.1 { bogus yes; };\n',
        "server default {\n  listen {\n    type = auth;\n  }\n}\n",
        "vcl 4.1;\nbackend default { .host = 'a'; }\nsub x { set req.http.host = 'a'; }\n",
        "include common.mk;\nall: server {\n",
        "include <stdio.h>;\nint main() { return 0; }",
        "proxy_pass http://a",
        "server { }",
        "http { a b; c d; }",
        "",
        "\x00\x01\x02",
        "types { text/html html; }",
    ],
)
def test_what_is_not_nginx(text: str) -> None:
    assert nginx.read({"file": text}) is None


@pytest.mark.parametrize(
    "text",
    [
        SITE,
        SITE.replace("\n", "\r\n"),
        SITE.replace("\n", " "),
        "# <<< managed by ops >>>\n" + SITE,
        "# see <<\n" + SITE,
        "${GLOBAL}\n" + SITE,
        "location ~ \\.php$ { proxy_pass http://web; }",
        "location ~* ^/a{1,2} { proxy_pass http://web; }",
        'location "/a b" { proxy_pass "http://web"; }',
        "location @named { proxy_pass http://web; }",
        "upstream x { server y; }\nlocation / { return 204; }\n" + SITE,
        "proxy_pass http://web;",
        "map $a $b { default 1; '~*x' 2; }\n" + SITE,
        "http { " + SITE + "}",
        "user nginx;\nworker_processes auto;\nevents { worker_connections 1; }\nhttp {"
        + SITE
        + "}",
    ],
)
def test_what_is_nginx(text: str) -> None:
    config = nginx.read({"file": text, "readme": "hello", "values.json": "{}"})
    if text.startswith("location ~* ^/a{1,2}"):
        # The braces need quotes: nginx refuses this one too.
        assert config is None or config.unreadable
        return
    assert config is not None
    assert [proxy.target for proxy in config.proxies] == ["http://web"]
    assert config.unreadable == ()


def test_a_configmap_of_settings_alone_proxies_nothing() -> None:
    assert nginx.read({"proxy_params": "proxy_set_header Host $host;"}) == NginxConfig((), ())


def test_a_template_of_envsubst() -> None:
    (proxy,) = read(
        {
            "default.conf.template": """\
server {
    listen ${PORT} ;
    server_name ${A} ${B};
    location / {
        ${EXTRA_PROXY_SETTINGS}
        proxy_pass http://${BACKEND} ;
        proxy_http_version ${VERSION};
    }
}
"""
        }
    ).proxies
    assert proxy.target == "http://${BACKEND}"
    assert proxy.http_version == Setting("${VERSION}", "default.conf.template", 7, "location")
    assert proxy.gaps == (Gap("${EXTRA_PROXY_SETTINGS}", "default.conf.template", 5),)
    assert proxy.context == "server ${A}, location /"


@pytest.mark.parametrize(
    "lua",
    [
        "content_by_lua_block { ngx.say('}') }",
        "content_by_lua_block {\n  -- it's { here\n  local t = {a = {}}\n}",
        "access_by_lua_block {\n  --[[ don't\n } ]]\n  x = [==[ it's ]] } ]==]\n}",
        'rewrite_by_lua_block{ ngx.say("\\"}") }',
        "server_rewrite_by_lua_block { if a then b = '{' end }",
        "set_by_lua_block $x {\n return 1; }",
    ],
)
def test_lua_blocks_are_stepped_over_and_lines_kept(lua: str) -> None:
    text = f"server {{ location / {{\n{lua}\n proxy_pass http://web;\n}} }}"
    (proxy,) = read({"a": text}).proxies
    assert proxy.line == text.splitlines().index(" proxy_pass http://web;") + 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            SITE.rstrip("}\n"),
            4,
            'unexpected end of file, expecting "}" ("location" on line 3 is open)',
        ),
        (SITE + "}\n", 7, 'unexpected "}"'),
        (SITE.replace("http://web;", "http://web"), 4, '"proxy_pass" is not terminated by ";"'),
        (
            SITE.replace("listen 80;", "listen 80"),
            2,
            '"listen" is not terminated by ";"',
        ),
        (
            SITE.replace("    proxy_pass", "    proxy_http_version 1.1\n    proxy_pass"),
            4,
            '"proxy_http_version" takes 1 and has 3 arguments (is a ";" missing?)',
        ),
        (SITE.replace("http://web", ""), 4, '"proxy_pass" takes 1 and has 0 arguments'),
        (
            "error_log stderr\nhttp {\n" + SITE + "}",
            1,
            '"error_log" is not terminated by ";"',
        ),
        (SITE.replace("80;", "80;;"), 2, 'unexpected ";"'),
        (SITE.replace("80;", "80; {"), 2, 'unexpected "{"'),
        (
            SITE.replace("listen", 'server_name "a;\nlisten'),
            2,
            'unexpected end of file, expecting """',
        ),
        (SITE + "worker_processes 1", 7, '"worker_processes" is not terminated by ";"'),
        (
            SITE.replace("http://web;", "http://${WEB;"),
            4,
            '"proxy_pass" is not terminated by ";"',
        ),
    ],
)
def test_nginx_that_cannot_be_read_says_where_and_why(text: str, line: int, message: str) -> None:
    assert read({"nginx.conf": text}) == NginxConfig((), (Unreadable("nginx.conf", line, message),))


def test_one_unreadable_file_does_not_hide_the_others() -> None:
    config = read({"a.conf": SITE, "b.conf": SITE.rstrip("}\n")})
    assert [proxy.key for proxy in config.proxies] == ["a.conf"]
    assert [fault.key for fault in config.unreadable] == ["b.conf"]


def test_a_message_holds_no_control_characters() -> None:
    config = read({"a": SITE + "\x1b[31m" + "x" * 1000})
    (fault,) = config.unreadable
    assert fault.message.isprintable()
    assert len(fault.message) < 200


# Hostile input


def test_values_that_are_no_text_are_passed_over() -> None:
    assert nginx.read({"a": None, "b": 3, "c": ["server {"]}) is None  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SITE + "#" * nginx.MAX_SIZE, "is beyond the 1048576 characters that a ConfigMap can hold"),
        (SITE + "location / {" * 10_000, "has blocks nested deeper than 64"),
        (SITE + "\n" + "a;" * (nginx.MAX_DIRECTIVES + 1), "has more than 100000 directives"),
        (SITE + '"' + "a" * 900_000, 'unexpected end of file, expecting """'),
    ],
    ids=["size", "depth", "directives", "quote"],
)
def test_what_is_too_much_is_unreadable(text: str, message: str) -> None:
    config = read({"nginx.conf": text})
    assert config.proxies == ()
    assert [fault.message for fault in config.unreadable] == [message]


def test_includes_that_multiply_are_given_up() -> None:
    data = {f"f{n}": f"include f{n + 1};\n" * 8 + "proxy_set_header A b;\n" for n in range(12)}
    data["nginx.conf"] = "http { include f0; server { location / { proxy_pass http://a; } } }"
    config = read({**data, "f12": "proxy_set_header A b;"})
    assert [fault.message for fault in config.unreadable] == [
        "its includes expand to more than 100000 directives; rest not read"
    ]


@pytest.mark.parametrize(
    "body",
    [
        "include absent;\n" * 20_000 + "location / { include b; proxy_pass http://a; }\n" * 10,
        "".join(f"include a{n}*;\n" for n in range(20_000)),
    ],
    ids=["gaps", "patterns"],
)
def test_gaps_and_patterns_count_against_the_same_limit(body: str) -> None:
    config = read({"nginx.conf": f"server {{ listen 80; {body} }}"})
    assert [fault.message for fault in config.unreadable] == [
        "its includes expand to more than 100000 directives; rest not read"
    ]


def test_a_pattern_longer_than_any_key_is_a_gap() -> None:
    pattern = "*" * 254
    text = f"server {{ location / {{ include {pattern}; proxy_pass http://a; }} }}"
    (proxy,) = read({"nginx.conf": text, "params": "proxy_http_version 1.1;"}).proxies
    assert proxy.gaps == (Gap(f"include {pattern}", "nginx.conf", 1),)
    assert proxy.http_version is None


def test_a_long_chain_of_includes_is_cut() -> None:
    data = {f"f{n}": f"include f{n + 1};\nproxy_set_header A b;\n" for n in range(500)}
    data["nginx.conf"] = "http { include f0; server { location / { proxy_pass http://a; } } }"
    config = read(data)
    assert [proxy.target for proxy in config.proxies] == ["http://a"]
    assert [fault.message for fault in config.unreadable] == ["includes are nested deeper than 64"]


def test_blocks_that_includes_nest_too_deeply_are_cut() -> None:
    nested = "location /a { location /b { location /c { include f%d; proxy_pass http://x; } } }"
    data = {f"f{n}": nested % (n + 1) for n in range(60)}
    data["nginx.conf"] = "http { server { include f0; } }"
    config = read(data)
    assert [fault.message for fault in config.unreadable] == [
        "has blocks nested deeper than 64, through its includes"
    ]


SCRAPS = st.sampled_from(
    [
        *("{", "}", ";", ";\n", "\n", "#", '"', "'", "\\", "$", "${", "${A}", "http{", "server{"),
        *("location", "/", "upstream", "b", "proxy_pass", "http://b", "proxy_http_version"),
        *("1.1;", "proxy_set_header", "A", "include", "*", "../x", "a.conf", "if", "events"),
        *("content_by_lua_block{", "[[", "]]", "--", "\x00", "\x1b", "\ue000", "\u2028", "<<EOF"),
    ]
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["nginx.conf", "a.conf", "x"]), st.lists(SCRAPS | st.text()))
)
def test_any_text_is_read_without_a_traceback(data: dict[str, list[str]]) -> None:
    config = nginx.read(
        {key: " ".join(["server { listen 80; }", *words]) for key, words in data.items()}
    )
    for proxy in config.proxies if config else ():
        assert proxy.hosts is None or isinstance(proxy.hosts, tuple)
        assert proxy.key in data
        assert proxy.level in ("location", "if", "limit_except")


def test_a_file_cut_short_inside_a_block_is_never_half_read() -> None:
    text = "upstream web { server web.shop:80; }\n" + SITE
    for end in range(len(text)):
        cut = text[:end]
        if cut.count("{") > cut.count("}"):
            config = nginx.read({"a": cut})
            assert config is None or (config.unreadable and not config.proxies)
            assert config is not None or "80;" not in cut


# Inheritance against a reference that knows neither text nor scopes


@dataclass
class Block:
    """One level: its version, its headers, whether it proxies, and the levels in it."""

    versions: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    proxies: bool = False
    inner: list[Block] = field(default_factory=list)
    own_file: bool = False


def blocks(depth: int) -> st.SearchStrategy[Block]:
    inner = st.lists(blocks(depth - 1), max_size=3) if depth else st.just([])
    return st.builds(
        Block,
        versions=st.lists(st.sampled_from(["1.0", "1.1"]), max_size=1),
        headers=st.lists(st.sampled_from(["Host", "Connection", "X-A", "X-B"]), max_size=2),
        proxies=st.booleans(),
        inner=inner,
        own_file=st.booleans(),
    )


def render(block: Block, path: list[int], files: dict[str, str], draw: st.DrawFn) -> str:
    """The inside of a block, its parts in any order, a part of it perhaps in another file."""
    parts = [f"proxy_http_version {version};" for version in block.versions]
    name = "x".join(map(str, path))
    if block.proxies and len(path) > 1:
        parts.append(f"proxy_pass http://p{name};")
    for number, inner in enumerate(block.inner):
        at = [*path, number]
        opening = "server {" if len(path) == 0 else f"location /{number} {{ # {{"
        parts.append(f"{opening}\n{render(inner, at, files, draw)}\n}}")
    parts = list(draw(st.permutations(parts)))
    # The order of headers is theirs to keep.
    parts += [f'proxy_set_header {header} "{name}";' for header in block.headers]
    text = draw(st.sampled_from(["\n", " ", "\r\n  ", " # it's\n"])).join(parts) + "\n"
    if block.own_file:
        files[f"part{name}"] = text
        return f"include /etc/nginx/parts/part{name};"
    return text


def reference(http: Block) -> dict[str, tuple[str | None, list[tuple[str, str]]]]:
    """For each proxy_pass: the nearest version on the way out, and the nearest list of headers."""
    found: dict[str, tuple[str | None, list[tuple[str, str]]]] = {}

    def visit(way: list[tuple[Block, str]], path: list[int]) -> None:
        block, name = way[-1]
        if block.proxies and len(path) > 1:
            outwards = list(reversed(way))
            version = next((b.versions[0] for b, _ in outwards if b.versions), None)
            headers = next(([(h, n) for h in b.headers] for b, n in outwards if b.headers), [])
            found[f"http://p{name}"] = (version, headers)
        for number, inner in enumerate(block.inner):
            at = [*path, number]
            visit([*way, (inner, "x".join(map(str, at)))], at)

    visit([(http, "")], [])
    return found


@settings(deadline=None)
@given(st.data(), blocks(4))
def test_inheritance_agrees_with_the_reference(data: st.DataObject, http: Block) -> None:
    files: dict[str, str] = {}
    body = render(http, [], files, data.draw)
    files["nginx.conf"] = f"events {{ worker_connections 1; }}\nhttp {{\n{body}\n}}\n"
    config = read(files)
    assert config.unreadable == ()
    seen = {
        proxy.target: (
            proxy.http_version.value if proxy.http_version else None,
            [(header.name, header.value) for header in proxy.headers],
        )
        for proxy in config.proxies
    }
    assert seen == reference(http)
    assert len(config.proxies) == len(seen)
    for proxy in config.proxies:
        for at in [proxy, *proxy.headers, *filter(None, [proxy.http_version])]:
            line = files[at.key].split("\n")[at.line - 1]
            assert "proxy_" in line


# Images


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("nginx:1.25-alpine", "1.0"),
        ("nginx:1.25.3", "1.0"),
        ("nginx:1.7.9", "1.0"),
        ("nginx:1.28", "1.0"),
        ("nginx:1.29.6", "1.0"),
        ("nginx:1.29.7", "1.1"),
        ("nginx:1.29.8-alpine3.22-slim", "1.1"),
        ("nginx:1.30", "1.1"),
        ("nginx:1.30.0-perl", "1.1"),
        ("nginx:1.31.3", "1.1"),
        ("nginx:v1.31.3", "1.1"),
        ("docker.io/library/nginx:1.27.1@sha256:" + "0" * 64, "1.0"),
        ("reg:5000/nginx:1.27.1", "1.0"),
        ("localhost/nginx:1.8", "1.0"),
        ("registry.example.com/mirror/nginx:1.27.1", "1.0"),
        ("nginxinc/nginx-unprivileged:1.25.3", "1.0"),
        ("bitnami/nginx:1.27.4-debian-12-r0", "1.0"),
        ("openresty/openresty:1.25.3.1-alpine", "1.0"),
        ("openresty/openresty:1.29.7.1-0-bookworm", "1.1"),
        ("nginx:1.29", None),
        ("nginx:1.29-alpine", None),
        ("nginx:1-alpine", None),
        ("nginx:1.29rc1", None),
        ("nginx:latest", None),
        ("nginx", None),
        ("nginx:stable", None),
        ("nginx:mainline-alpine", None),
        ("reg:5000/nginx", None),
        ("nginx@sha256:" + "0" * 64, None),
        ("registry.k8s.io/ingress-nginx/controller:v1.9", None),
        ("nginx/nginx-ingress:3.4.0", None),
        ("registry.k8s.io/nginx-slim:0.27", None),
        ("registry.example.com/acme/nginx:1.2.3", None),
        ("acme/nginx:2024.1.5", None),
        ("acme/frontend:1.25.3", None),
        ("nginx/nginx-prometheus-exporter:1.1.0", None),
        ("", None),
        (":@/", None),
        ("nginx:1.٣.4", None),
    ],
)
def test_the_default_of_an_image(image: str, version: str | None) -> None:
    default, why = default_http_version(image)
    assert default == version
    assert why


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("nginx:1.25-alpine", "nginx 1.25 proxies with HTTP/1.0 by default, as all before 1.29.7"),
        ("nginx:1.31.0", "nginx 1.31.0 proxies with HTTP/1.1 by default, as all since 1.29.7"),
        ("nginx:1.29", "image nginx:1.29 may be older or newer than nginx 1.29.7"),
        ("nginx:latest", "tag latest of image nginx:latest is not one version of nginx"),
        ("nginx", "image nginx has no tag that says which nginx it holds"),
        ("a/nginx:1.2", "tag 1.2 of image a/nginx:1.2 may be a version of its own, not nginx's"),
        ("b/web:1", "the name of image b/web:1 does not say that it holds nginx"),
        ("nginx-slim:1", "image nginx-slim:1 has version numbers of its own, not nginx's"),
    ],
)
def test_why_an_image_has_its_default(image: str, why: str) -> None:
    assert default_http_version(image)[1] == why


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", True),
        ("reg:5000/team/nginx-unprivileged:1.2", True),
        ("openresty/openresty:1.25.3.1", True),
        ("registry.k8s.io/ingress-nginx/controller:v1.9", True),
        ("nginx/nginx-ingress:3.4.0", True),
        ("acme/my-nginx_custom:7", True),
        ("registry.k8s.io/ingress-nginx/kube-webhook-certgen:v1", False),
        ("nginx/nginx-prometheus-exporter:1.1.0", False),
        ("nginx/nginx-ingress-operator:3", False),
        ("acme/controller:1", False),
        ("acme/mynginxish:1", False),
        ("httpd:2.4", False),
        ("", False),
    ],
)
def test_is_nginx_image(image: str, expected: bool) -> None:
    assert is_nginx_image(image) is expected


@given(st.text())
def test_any_image_is_judged_without_a_traceback(image: str) -> None:
    default, _ = default_http_version(image)
    assert default is None or is_nginx_image(image)
