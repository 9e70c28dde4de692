"""A mesh of any size, clean by every rule: what the benchmarks run on.

For each service: a Service, two Deployments, a DestinationRule with two subsets, a VirtualService
of the mesh and one of the gateway.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

_COMMON = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: entrance, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*.shop.example.com"]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  selector:
    matchLabels: {istio: ingressgateway}
  template:
    metadata:
      labels: {istio: ingressgateway, app: istio-ingressgateway}
    spec:
      containers:
      - name: istio-proxy
        image: proxyv2
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports: [{name: http2, port: 80}]
"""

_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: s{n}
  namespace: shop
  labels:
    app: s{n}
spec:
  selector:
    app: s{n}
  ports:
  - name: http
    port: 8080
"""

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: s{n}-{version}
  namespace: shop
  labels:
    app: s{n}
    version: {version}
spec:
  replicas: 1
  selector:
    matchLabels:
      app: s{n}
      version: {version}
  template:
    metadata:
      labels:
        app: s{n}
        version: {version}
    spec:
      containers:
      - name: app
        image: registry.example.com/s{n}:{version}
        ports:
        - containerPort: 8080
"""

_ISTIO = """\
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: s{n}
  namespace: shop
spec:
  host: s{n}.shop.svc.cluster.local
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: s{n}
  namespace: shop
spec:
  hosts:
  - s{n}
  http:
  - match:
    - headers:
        end-user:
          exact: tester
    route:
    - destination:
        host: s{n}
        subset: v2
  - route:
    - destination:
        host: s{n}
        subset: v1
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: s{n}-ingress
  namespace: shop
spec:
  hosts:
  - s{n}.shop.example.com
  gateways:
  - entrance
  http:
  - match:
    - headers:
        end-user:
          exact: tester
    route:
    - destination:
        host: s{n}
        subset: v2
  - route:
    - destination:
        host: s{n}
        subset: v1
"""


def documents(services: int) -> Iterator[str]:
    """The manifests of a mesh with that many services, each a YAML text."""
    yield _COMMON
    for n in range(services):
        yield _SERVICE.format(n=n)
        for version in ("v1", "v2"):
            yield _DEPLOYMENT.format(n=n, version=version)
        yield _ISTIO.format(n=n)


if __name__ == "__main__":
    sys.stdout.write("---\n".join(documents(int(sys.argv[1]))))
