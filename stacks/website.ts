/** What the nginx of the local environment is told: to stay in the foreground, log to its streams and serve a page. */

/** Port the server listens on. */
export const port = 80;

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
