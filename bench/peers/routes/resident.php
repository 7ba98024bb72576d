<?php
/**
 * An echo that stays in memory, in plain PHP: one process, `stream_select`, RFC 6455 by hand. No limits, no heartbeat, no
 * fragments, no close codes; Debian has no WebSocket server for PHP to measure instead.
 */
$listener = stream_socket_server('tcp://127.0.0.1:0') or exit(1);
echo 'listening on ', stream_socket_get_name($listener, false), "\n";
$sockets = [$listener];
$received = $isOpen = [];
for (;;) {
    $readable = $sockets;
    $none = null;
    if (!stream_select($readable, $none, $none, null)) {
        continue;
    }
    foreach ($readable as $socket) {
        if ($socket === $listener) {
            $client = stream_socket_accept($listener);
            stream_set_blocking($client, false);
            socket_set_option(socket_import_stream($client), SOL_TCP, TCP_NODELAY, 1);
            $sockets[(int) $client] = $client;
            $received[(int) $client] = '';
            continue;
        }
        $id = (int) $socket;
        $bytes = fread($socket, 65536);
        if ($bytes === '' || $bytes === false) {
            fclose($socket);
            unset($sockets[$id], $received[$id], $isOpen[$id]);
            continue;
        }
        $received[$id] .= $bytes;
        if (isset($isOpen[$id])) {
            $answer = echoes($received[$id]);
        } elseif ($isOpen[$id] = preg_match('/^Sec-WebSocket-Key: (\S+)\r\n.*\r\n\r\n/ims', $received[$id], $match)) {
            $accept = base64_encode(sha1($match[1] . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
            $answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: $accept\r\n\r\n";
            $received[$id] = '';
        } else {
            unset($isOpen[$id]);
            continue;
        }
        fwrite($socket, $answer);
        if (str_starts_with($answer, "\x88")) {
            stream_socket_shutdown($socket, STREAM_SHUT_WR);
        }
    }
}

/** Takes whole frames off what was received, and gives what is to be sent for them. */
function echoes(string &$received): string
{
    $answer = '';
    while (strlen($received) >= 6) {
        $length = ord($received[1]) & 0x7f;
        $at = 2;
        if ($length === 126) {
            [$length, $at] = [unpack('n', $received, 2)[1], 4];
        } elseif ($length === 127) {
            if (strlen($received) < 10) {
                break;
            }
            [$length, $at] = [unpack('J', $received, 2)[1], 10];
        }
        if (strlen($received) < $at + 4 + $length) {
            break;
        }
        $key = str_repeat(substr($received, $at, 4), intdiv($length, 4) + 1);
        $text = substr($received, $at + 4, $length) ^ $key;
        $size = match (true) {
            $length < 126 => chr($length),
            $length < 65536 => "\x7e" . pack('n', $length),
            default => "\x7f" . pack('J', $length),
        };
        $answer .= $received[0] . $size . $text;
        $received = substr($received, $at + 4 + $length);
    }
    return $answer;
}
