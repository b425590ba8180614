/**
 * The website that every environment runs. Its nginx stays in the foreground, logs to its standard streams and serves a
 * page.
 */
import type * as pulumi from "@pulumi/pulumi";
import type { HostNetworkPolicyArgs } from "../components/index.js";

/** Port the server listens on. */
export const port = 80;

/** The group's arguments; the same on a host, on Azure and on Kubernetes. */
export function website(image: pulumi.Input<string>) {
  return {
    containers: [
      {
        name: "nginx",
        image,
        ports: [{ port, protocol: "TCP" }],
        resources: { requests: { cpu: 0.5, memoryInGB: 0.25 }, limits: { cpu: 1, memoryInGB: 0.5 } },
      },
    ],
    ipAddress: { type: "Public", ports: [{ port, protocol: "TCP" }] },
    restartPolicy: "Always",
  };
}

/** The website's network policy on a host: everybody may reach its port, and it may reach nobody. */
export const websitePolicy = {
  groups: [{ name: "web" }],
  networkPolicies: [
    { name: "web", groupSelector: {}, policyTypes: ["Ingress", "Egress"], ingress: [{ ports: [{ port }] }] },
  ],
} satisfies Omit<HostNetworkPolicyArgs, "host">;

/** Files of the image, by absolute path. */
export const files: Record<string, string> = {
  "/etc/nginx/nginx.conf": `daemon off;
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;

events {
    worker_connections 512;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    server_tokens off;
    sendfile on;
    access_log /dev/stdout;

    server {
        listen ${port} default_server;
        root /var/www/html;

        location = /healthz {
            access_log off;
            default_type text/plain;
            return 200 "ok\\n";
        }
    }
}
`,
  "/var/www/html/index.html": `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>Palisade</title>
  </head>
  <body>
    <h1>Palisade</h1>
    <p>A container group on a hardened, immutable host.</p>
  </body>
</html>
`,
};
