<?php
/** The same for WebSocket-over-HTTP: reads the events of a request, and answers each with the one that it asks for. */
$body = file_get_contents('php://input');
header('Content-Type: application/websocket-events');
for ($at = 0; ($end = strpos($body, "\r\n", $at)) !== false;) {
    [$type, $length] = explode(' ', substr($body, $at, $end - $at)) + [1 => null];
    $at = $end + 2;
    $content = '';
    if ($length !== null) {
        $content = substr($body, $at, hexdec($length));
        $at += hexdec($length) + 2;
    }
    if ($type === 'OPEN') {
        echo "OPEN\r\n";
    } elseif ($type === 'TEXT' || $type === 'CLOSE') {
        printf("%s %X\r\n%s\r\n", $type, strlen($content), $content);
    }
}
