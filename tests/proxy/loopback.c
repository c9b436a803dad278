/* Preloaded into the proxy, which has no option for its bind address: what would listen on every interface listens on
   loopback.  The Java side runs with preferIPv4Stack, so that IPv4 is all there is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

int bind(int socket, const struct sockaddr *address, socklen_t size) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    struct sockaddr_in here;

    if (next == NULL)
        next = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
    if (address != NULL && address->sa_family == AF_INET && size >= sizeof here) {
        here = *(const struct sockaddr_in *)address;
        if (here.sin_addr.s_addr == htonl(INADDR_ANY)) {
            here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            return next(socket, (const struct sockaddr *)&here, sizeof here);
        }
    }
    return next(socket, address, size);
}
