/* What any broker does at least: takes requests from TCP connections and writes them to files, one for each connection.
 *
 *   floor FOLDER flush|page-cache
 *
 * Prints the port that it listens on. It looks at nothing but a request's length, writes the whole request, waits for the
 * disk if asked to, and answers with zeros, which saturate.py takes for "no error". What it costs is the kernel's part.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX (1 << 20)
#define ANSWER_BYTES 100

static const char *folder;
static bool flushes;
static atomic_int files;

static void die(const char *what) {
        perror(what);
        exit(1);
}

/* Whether all of them came before the peer closed. */
static bool receive(int peer, void *bytes, size_t count) {
        return recv(peer, bytes, count, MSG_WAITALL) == (ssize_t)count;
}

static void *serve(void *argument) {
        int peer = (int)(intptr_t)argument;
        char path[4096];
        snprintf(path, sizeof(path), "%s/floor-%d", folder, atomic_fetch_add(&files, 1));
        int file = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
        char *request = malloc(REQUEST_BYTES_MAX);
        if (file < 0 || !request)
                die(path);
        uint32_t answer[1 + ANSWER_BYTES / 4] = {htonl(ANSWER_BYTES)};
        uint32_t length;
        while (receive(peer, &length, sizeof(length))) {
                length = ntohl(length);
                if (length > REQUEST_BYTES_MAX) {
                        fprintf(stderr, "floor: a request of %u bytes\n", length);
                        exit(1);
                }
                if (!receive(peer, request, length))
                        break;
                if (write(file, request, length) != (ssize_t)length || (flushes && fdatasync(file)))
                        die(path);
                if (send(peer, answer, sizeof(answer), 0) != (ssize_t)sizeof(answer))
                        break;
        }
        free(request);
        close(file);
        close(peer);
        return NULL;
}

int main(int count, char **arguments) {
        if (count != 3 || (strcmp(arguments[2], "flush") && strcmp(arguments[2], "page-cache"))) {
                fprintf(stderr, "floor FOLDER flush|page-cache\n");
                return 2;
        }
        folder = arguments[1];
        flushes = !strcmp(arguments[2], "flush");
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
        if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16) ||
            getsockname(listener, (struct sockaddr *)&address, &size))
                die("listen");
        printf("%d\n", ntohs(address.sin_port));
        fflush(stdout);
        for (;;) {
                int peer = accept(listener, NULL, NULL);
                pthread_t thread;
                if (peer < 0 || setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
                    pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer) || pthread_detach(thread))
                        die("accept");
        }
}
